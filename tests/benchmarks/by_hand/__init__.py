"""What people write to start a framework's processes without Nimbus Hub."""
