"""python -m isoflop"""

from isoflop._cli import main

main()
