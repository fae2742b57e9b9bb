"""What Forge and its relatives share: a UNet behind patchers, whose calls go through a wrapper."""
