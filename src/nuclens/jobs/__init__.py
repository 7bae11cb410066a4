"""What a user asks for, one plain function each."""
