"""Launch: how a function of a generated module is started for a range of m."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """One way to start one function.

    Attributes:
        symbol: name of the range, such as `few`.
        function: the `@triton.jit` function.
        largest_m: the last m that it serves, or None.
        block_n: rows of W of a program; keys of a pass.
        block_m: tokens of a program; queries of a program.
        programs: k, or the keys, are split until there are as many programs as this; 0 leaves them
            whole.
        warps: of a program.
        stages: loads of that many passes of the loop are under way at once.
        source: name of the module's source, where kernels are of several.
    """

    symbol: str
    function: str
    largest_m: int | None
    block_n: int
    block_m: int
    programs: int
    warps: int
    stages: int
    source: str = ""

    def __str__(self) -> str:
        """`few: m <= 16, linear, 16 x 16 (n x m), 4 warps, 3 stages, k split to 264 programs`."""
        rows = f"m <= {self.largest_m}" if self.largest_m is not None else "any m"
        split = f", k split up to {self.programs} programs" if self.programs else ""
        return (
            f"{self.symbol}: {rows}, {self.function}, {self.block_n} x {self.block_m} (n x m), "
            f"{self.warps} warps, {self.stages} stages{split}"
        )

    def splits(self, n: int, tiles: int) -> int:
        """In how many parts k is split for a weight with n rows: a power of two."""
        return self.parts(-(-n // self.block_n), tiles)

    def parts(self, blocks: int, tiles: int) -> int:
        """In how many parts the tiles of so many blocks are split: a power of two."""
        wanted = min(self.programs // max(blocks, 1), tiles)
        return 1 << (wanted.bit_length() - 1) if wanted > 1 else 1
