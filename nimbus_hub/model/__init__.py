"""What things are: frozen values, enums and tables of moves; standard library only."""
