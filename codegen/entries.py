"""Where the cache folder is named, and what its files are called: it may hold other things too."""

from __future__ import annotations

import re

VARIABLE = "SPARSECOMPILE_CACHE_DIR"
_ENTRY = r"[^./][^/]*[-_][0-9a-f]{20}\.\w+(\.sha256)?"
ENTRY = re.compile(rf"{_ENTRY}|tuning\.(jsonl|jsonl\.lock|lock)")
"""Everything that stays."""
TEMPORARY = re.compile(rf"\.{_ENTRY}\.\w+")
"""A file while it is written."""
BUILDING = ".build-"
"""How folders for a compiler's output begin."""
