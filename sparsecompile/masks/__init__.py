"""Which keys a query attends to: patterns as predicates, and the blocks that they keep."""
