"""The providers' formats: decoders of streams, dialects, usage and errors. Pure."""
