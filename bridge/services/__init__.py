"""What a gateway does for its events beside calling providers; `relay.services` says what each is asked for."""
