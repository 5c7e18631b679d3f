"""What every package needs: errors, console, registry, recipes, rows, run folders, devices, weights."""
