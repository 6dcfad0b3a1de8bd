"""Services that a gateway runs for its events beside provider calls. `relay.interfaces` defines their protocols."""
