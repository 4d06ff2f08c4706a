"""What happened to every node, and why."""
