"""What a run leaves on disk, and the requests that it takes from there."""
