"""How the processes of a framework find each other: application masters, pure."""
