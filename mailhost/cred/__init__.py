"""Who somebody is: checkers, one portal's realm, throttling of failures."""
