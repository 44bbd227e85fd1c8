"""What happens: leases, jobs and the one loop that acts."""
