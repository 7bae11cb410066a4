"""How the tables of the field are made, one protocol a file: frozen data, no code."""
