"""The strips template, and the kinds of tiles that its layouts are made of, one a file."""

from sparsecompile.codegen.cpp.strips.template import StripsLinear

__all__ = ["StripsLinear"]
