"""Redaction: find secrets in text, headers, URLs and bodies, and mask them. Pure."""
