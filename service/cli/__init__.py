"""The command `tallystick`."""
