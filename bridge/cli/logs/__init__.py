"""The command line's `bridge logs`: what it takes (`commands`, `asking`), and what it shows (`listing`, `telling`)."""
