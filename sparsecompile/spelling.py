"""Targets under which a graph calls one operation; for patterns."""

from __future__ import annotations

import torch
from torch.nn import functional as F

LINEAR = (F.linear, torch.ops.aten.linear.default)
"""`linear(input, weight, bias=None)`; what `canonicalize` leaves."""
