"""What is known of a flight, told to an autopilot or to whoever takes a satellite receiver's place.

Not for flight control: aerofix has not been certified, or flown.
"""
