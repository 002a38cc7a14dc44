"""Commands that check a whole cluster: nodes that die and join, the placement of engines, an autoscaler."""
