"""Commands that have commands of their own, a file each, and what all of them draw with."""
