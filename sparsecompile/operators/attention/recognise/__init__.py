"""Which mask a graph makes: read as conditions on keys, and held against what it computes."""
