"""Tests of a Django application's mail, through its real SMTP backend.  Run them: pytest test_with_django.py"""

import pytest

django = pytest.importorskip("django")

from django.conf import settings  # noqa: E402
from django.core.mail import send_mail  # noqa: E402


@pytest.fixture
def mail(mail_host):
    """Mail goes to the host; with pytest-django its fixture `settings` does the same."""
    if not settings.configured:
        settings.configure()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = mail_host.submission_address
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "shop@example.test", "secret"
    mail_host.add_account("shop@example.test", "secret")
    return mail_host


def test_order_is_confirmed(mail):
    send_mail("Your order", "Thank you.", "shop@example.test", ["ann@example.test"])
    message = mail.inbox("ann").wait_for(subject="Your order")
    assert message.reverse_path == "shop@example.test"
