"""What the compilers make of a Triton kernel, with no GPU at hand.

A full search leaves out by it what spills; no other compilation compiles or reads anything here.
"""
