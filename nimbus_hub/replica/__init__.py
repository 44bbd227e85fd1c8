"""What runs inside a replica: standard library only, Python 3.6 and later."""
