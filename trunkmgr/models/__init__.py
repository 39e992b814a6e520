"""The tables of trunkmgr, one module a subject."""

from trunkmgr.models.api_token import ApiToken
from trunkmgr.models.call import Call, Dialog
from trunkmgr.models.credential import Credential
from trunkmgr.models.device import Device, Location
from trunkmgr.models.node import Ban, Change, Node, Order, Parameter, SipRequest
from trunkmgr.models.profile import Profile, ProfileField
from trunkmgr.models.provider import Provider
from trunkmgr.models.registration import Departure, FurtherRegistration, Registration, RegistrationEvent
from trunkmgr.models.routing import Domain
from trunkmgr.models.uacreg import UacReg, UacRegOptions

__all__ = [
    "ApiToken",
    "Ban",
    "Call",
    "Change",
    "Credential",
    "Departure",
    "Device",
    "Dialog",
    "Domain",
    "FurtherRegistration",
    "Location",
    "Node",
    "Order",
    "Parameter",
    "Profile",
    "ProfileField",
    "Provider",
    "Registration",
    "RegistrationEvent",
    "SipRequest",
    "UacReg",
    "UacRegOptions",
]
