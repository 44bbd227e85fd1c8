"""The pages at /services/nimbus/."""
