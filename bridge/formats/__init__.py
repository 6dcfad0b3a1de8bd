"""The providers' formats: stream decoders, dialects, usage and error reports. Pure."""
