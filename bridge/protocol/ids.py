"""Generate UUIDv7 ids (RFC 9562, section 5.7), which sort by time and reveal nothing else."""

import uuid


def uuid7(unix_ms: int, random_bits: int) -> str:
    """Return the UUIDv7 of a time and 74 random bits."""
    high = (unix_ms & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | (random_bits >> 62) & 0xFFF
    low = 0b10 << 62 | random_bits & 0x3FFF_FFFF_FFFF_FFFF
    return str(uuid.UUID(int=high << 64 | low))
