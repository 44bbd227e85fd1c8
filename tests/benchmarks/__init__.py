"""Benchmarks: sessions and jobs of Nimbus beside the stock ones, in the same run."""
