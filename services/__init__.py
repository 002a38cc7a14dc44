"""Ray Serve applications: one engine per model (generator), and the gateway that clients talk to."""
