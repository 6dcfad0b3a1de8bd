"""Define the shapes of API keys: prefixes and characters of the built-in providers and of other common services.

A key without such a shape (Azure, Cohere, Deepgram, Mistral and others use plain letters and digits) is recognised by
the header or the name beside it. To add a shape, add it here and to its test.
"""

from typing import Final

_LONG: Final = "[A-Za-z0-9_-]{16,}+"
_DOTTED: Final = "[A-Za-z0-9._-]{16,}+"
_BASE64: Final = "[A-Za-z0-9+/=_-]{16,}+"

SHAPES: Final = (
    ("[A-Za-z0-9_-]{8,}+", ("sk-",)),  # OpenAI and followers, Anthropic, DeepSeek, OpenRouter, Langfuse
    ("[A-Za-z0-9_-]{12,}+", ("AKIA", "ASIA")),  # AWS
    (r"""[^\n"']++""", ("AWS4-HMAC-SHA256 ",)),  # SigV4, to the end of the header
    (r"[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]++){1,4}+", ("eyJ",)),  # JWT
    # Google: access tokens, and keys of the new kind; SendGrid; Slack's rotated tokens; HashiCorp Vault.
    (_DOTTED, ("ya29.", "AQ.", "SG.", "xoxe.", "hvs.", "hvb.", "dp.pt.")),
    (_BASE64, ("ABSK", "bedrock-api-key-")),  # AWS Bedrock
    (
        _LONG,
        (
            *("AIza", "GOCSPX-"),  # Google
            *(
                "gsk_",
                "xai-",
                "hf_",
                "r8_",
                "pplx-",
                "csk-",
            ),  # Groq, xAI, Hugging Face, Replicate, Cerebras
            *(
                "fw_",
                "fpk_",
                "tgp_v1_",
                "nvapi-",
                "ek_",
                "psk-",
            ),  # Fireworks, Together, NVIDIA, OpenAI's sessions
            *("sk_", "rk_live_", "rk_test_", "whsec_"),  # Stripe, ElevenLabs, Cartesia
            *("cfut_", "cfat_"),  # Cloudflare
            "ubt_",  # our own, `bridge token`
            *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),  # GitHub
            *("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-", "glft-", "gloas-"),  # GitLab
            *("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-"),  # Slack
            *("npm_", "pypi-", "rubygems_", "dckr_pat_", "dop_v1_"),
            *("AGE-SECRET-KEY-1", "age-secret-key-1"),
            *("shpat_", "shpss_", "shpca_", "shppa_", "sbp_", "sb_secret_", "lin_api_", "ntn_", "PMAK-", "glsa_"),
            *("lsv2_pt_", "lsv2_sk_", "pcsk_", "tvly-", "jina_", "rpa_", "sq0atp-", "sq0csp-"),
        ),
    ),
)
"""Pairs of the pattern that follows a prefix, and the prefixes. The prefix stays readable when a key is masked."""

PREFIXES: Final = tuple(begin for _, beginnings in SHAPES for begin in beginnings)


def pattern() -> str:
    """Return a pattern with one group, which is the prefix of the key, for each of `SHAPES`."""
    alternatives = (f"({_any_of(begins)}){rest}" for rest, begins in SHAPES)
    return f"(?<![A-Za-z0-9_-])(?:{'|'.join(alternatives)})"


def _any_of(beginnings: tuple[str, ...]) -> str:
    """Return alternatives grouped by their first letter: a search compares one letter before it tries the group."""
    by_letter: dict[str, list[str]] = {}
    for begin in beginnings:
        by_letter.setdefault(begin[0], []).append(begin[1:].replace(".", r"\."))
    return "|".join(f"{letter}(?:{'|'.join(rests)})" for letter, rests in by_letter.items())
