"""Names that the bridge gives: UUIDv7 (RFC 9562, section 5.7), which sort by time and say nothing else."""

import uuid


def uuid7(unix_ms: int, chance: int) -> str:
    """A UUIDv7 of a time and of 74 bits of chance."""
    high = (unix_ms & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | (chance >> 62) & 0xFFF
    low = 0b10 << 62 | chance & 0x3FFF_FFFF_FFFF_FFFF
    return str(uuid.UUID(int=high << 64 | low))
