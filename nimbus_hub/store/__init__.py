"""Where it is kept: SQLAlchemy; one public method is one transaction."""
