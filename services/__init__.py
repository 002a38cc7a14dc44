"""Ray Serve applications: an engine for each model (generator), and the gateway that everybody talks to."""
