"""Django settings; whatever an operator may set comes from `trunkmgr.env`."""

from __future__ import annotations

import re
import warnings
from typing import Any

import environ
from django.urls import reverse_lazy

from trunkmgr import foreign, keys
from trunkmgr.env import BASE_DIR, env

TRUNKMGR = env

if env.embedded or not env.database_url:
    keys.ensure_folder(env.data_dir)
_keys = keys.load(env)
SECRET_KEY = _keys.secret_key
#: Keys of stored secrets, newest first (Fernet's form).
FIELD_KEYS = _keys.field_keys
#: Keys of the sealed Record-Route token, newest first, 32 bytes each.
SEAL_KEYS = _keys.seal_keys

DEBUG = False
ALLOWED_HOSTS = list(env.allowed_hosts)
ROOT_URLCONF = "trunkmgr.urls"
ASGI_APPLICATION = "trunkmgr.asgi.application"

INSTALLED_APPS = [
    "unfold",
    # SimpleAdminConfig leaves the admin's modules to urls.py: a management command starts a third faster.
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_celery_beat",
    "trunkmgr",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


def _database() -> dict[str, Any]:
    url = env.database_url or f"sqlite:///{env.data_dir / 'trunkmgr.sqlite3'}"
    config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    if config["ENGINE"] == "django.db.backends.sqlite3":
        # The defaults lose work when several threads write: a reader that turns writer fails at once whatever the
        # timeout is.  IMMEDIATE takes the write lock at the start, WAL lets readers go on.
        config["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            # With the 2 MB of cache that are the default each call record reads pages of its indexes again.
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=20000; "
                "PRAGMA cache_size=-16000"
            ),
        }
        # To open one costs the database thread as much as writing fifty calls, and empties that cache.
        config["CONN_MAX_AGE"] = 60
        # A shared in-memory database ignores the busy timeout, so tests use a file too.
        config["TEST"] = {"NAME": str(env.data_dir / "test.sqlite3")}
    else:
        # The pool keeps the connections; CONN_MAX_AGE would keep them a second time.
        config["CONN_MAX_AGE"] = 0
        config["OPTIONS"] = {**config.get("OPTIONS", {}), "pool": {"min_size": 1, "max_size": 10, "timeout": 10}}
    return config


DATABASES = {"default": _database()}
if env.reg_db_url:
    DATABASES[foreign.ALIAS] = foreign.database(env.reg_db_url, write=env.reg_db_write)
DATABASE_ROUTERS = ["trunkmgr.foreign.Router"]
# One transaction a request would keep SQLite's only write lock for a whole page.
ATOMIC_REQUESTS = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if env.embedded:
    CHANNEL_LAYERS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
else:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {
                # Channels lets Redis hold a read for 5 s, and so does the client by default: every quiet channel would
                # look like a dead Redis.
                "hosts": [{"address": env.redis_url, "socket_connect_timeout": 2, "socket_timeout": 10}],
                "capacity": 1000,
            },
        },
    }

CELERY_BROKER_URL = env.redis_url or "memory://localhost"
# The in-memory broker is polled; its default of 1 s would be the latency of a task.
CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.25} if env.embedded else {}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {
    "refresh-registrations": {
        "task": "trunkmgr.tasks.refresh_registrations",
        "schedule": env.reg_timer_interval,
        # A tick that waited for longer than this is overtaken by the next.
        "options": {"expires": env.reg_timer_interval},
    },
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = reverse_lazy("admin:login")
LOGIN_REDIRECT_URL = "/status/"
# Whether a request came over https its proxy says, whom uvicorn believes (TRUNKMGR_PROXIES): no trusted origins and no
# SECURE_PROXY_SSL_HEADER, which would believe everybody.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.https
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

STATIC_URL = "/static/"
# Files are served from where they are installed: no collectstatic step, and no STATIC_ROOT.
WHITENOISE_USE_FINDERS = True
# Whitenoise reads its (small) files at once, also under ASGI; nothing is left to do about it.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "trunkmgr": {"level": env.log_level},
        "sipengine": {"level": env.log_level},
        # The message trace is a stream of its own; it stays silent unless somebody asks for it.
        "sip.trace": {"level": "CRITICAL"},
        "django": {"level": "INFO", "handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # A page that is not there is the visitor's affair.
        "django.request": {"level": "ERROR"},
        "celery": {"level": "WARNING"},
        "uvicorn": {"level": "WARNING"},
        # A line for each try to connect; whoever needed the connection tells it once.
        "psycopg.pool": {"level": "ERROR"},
    },
}

UNFOLD = {
    "SITE_TITLE": "trunkmgr",
    "SITE_HEADER": "trunkmgr",
    "SITE_URL": "/status/",
    "SITE_ICON": lambda request: f"{STATIC_URL}trunkmgr/icon.svg",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: f"{STATIC_URL}trunkmgr/icon.svg"},
    ],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": True,
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "title": "Trunks",
                "items": [
                    {"title": "Status", "icon": "monitoring", "link": "/status/"},
                    {"title": "Accounts", "icon": "sim_card", "link": reverse_lazy("admin:trunkmgr_uacreg_changelist")},
                    {
                        "title": "Providers", "icon": "cell_tower",
                        "link": reverse_lazy("admin:trunkmgr_provider_changelist"),
                    },
                    {
                        "title": "Profiles", "icon": "library_books",
                        "link": reverse_lazy("admin:trunkmgr_profile_changelist"),
                    },
                    {"title": "Domains", "icon": "dns", "link": reverse_lazy("admin:trunkmgr_domain_changelist")},
                    {"title": "Devices", "icon": "deskphone", "link": reverse_lazy("admin:trunkmgr_device_changelist")},
                    {"title": "Check a call", "icon": "rule", "link": reverse_lazy("admin:trunkmgr_check_a_call")},
                    {
                        "title": "Credentials", "icon": "key",
                        "link": reverse_lazy("admin:trunkmgr_credential_changelist"),
                    },
                ],
            },
            {
                "title": "What happened",
                "items": [
                    {"title": "Calls", "icon": "call", "link": reverse_lazy("admin:trunkmgr_call_changelist")},
                    {
                        "title": "Registration events", "icon": "history",
                        "link": reverse_lazy("admin:trunkmgr_registrationevent_changelist"),
                    },
                    {
                        "title": "SIP requests", "icon": "send",
                        "link": reverse_lazy("admin:trunkmgr_siprequest_changelist"),
                        "permission": lambda request: request.user.has_perm("trunkmgr.view_siprequest"),
                    },
                    {
                        "title": "Registered devices", "icon": "phone_in_talk",
                        "link": reverse_lazy("admin:trunkmgr_location_changelist"),
                    },
                    {
                        "title": "Bans", "icon": "block", "link": reverse_lazy("admin:trunkmgr_ban_changelist"),
                        "permission": lambda request: request.user.has_perm("trunkmgr.view_ban"),
                        "active": lambda request: re.search("/trunkmgr/ban/(?!check)", request.path) is not None,
                    },
                    {"title": "Nodes", "icon": "memory", "link": reverse_lazy("admin:trunkmgr_node_changelist")},
                ],
            },
            {
                "title": "System",
                "items": [
                    {"title": "Users", "icon": "person", "link": reverse_lazy("admin:auth_user_changelist")},
                    {
                        "title": "API tokens", "icon": "vpn_key",
                        "link": reverse_lazy("admin:trunkmgr_apitoken_changelist"),
                        "permission": lambda request: request.user.has_perm("trunkmgr.view_apitoken"),
                    },
                    {
                        "title": "Periodic tasks", "icon": "schedule",
                        "link": reverse_lazy("admin:django_celery_beat_periodictask_changelist"),
                    },
                ],
            },
        ],
    },
}
