"""Structure, Codec, Format and Packed: how one weight is stored, whatever reads it."""
