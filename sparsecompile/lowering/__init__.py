"""From packed nodes to calls of ops in a compiled graph, whose weights are looked at."""
