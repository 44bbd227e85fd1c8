"""How a replica runs: the contract and the engines behind it."""
