"""Configuration: a TOML file, the environment and the command line, read once into frozen values."""

from bridge.config.checks import is_loopback
from bridge.config.gateway_toml import GATEWAY
from bridge.config.gateways import ANY, Gateway, Token, authenticate
from bridge.config.loading import PROVIDER, Configuration, load
from bridge.config.problems import ConfigError, Problem

__all__ = [
    "ANY",
    "GATEWAY",
    "PROVIDER",
    "ConfigError",
    "Configuration",
    "Gateway",
    "Problem",
    "Token",
    "authenticate",
    "is_loopback",
    "load",
]
