"""`python -m covermap`, which launchers of several processes need."""

from covermap.cli import main

main()
