"""Campaign planning: campaigns, their activities in every channel, launch, send windows and short links."""
