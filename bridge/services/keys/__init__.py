"""Stored provider keys: signing of provider calls with static keys, AWS SigV4 and Google OAuth tokens."""
