"""Tests of code that sends mail by smtplib.  Run them: pytest test_with_smtplib.py"""

import smtplib
from email.message import EmailMessage

import pytest


def confirm(order, smtp):  # the code under test
    message = EmailMessage()
    message["Subject"] = "Your order"
    message["From"], message["To"] = "shop@example.test", order["customer"]
    message.set_content(f"Thank you for {order['goods']}.")
    for attempt in (1, 2):
        try:
            with smtplib.SMTP(*smtp) as client:
                client.send_message(message)
            return
        except smtplib.SMTPRecipientsRefused:
            if attempt == 2:
                raise


ORDER = {"customer": "ann@example.test", "goods": "a lamp"}


def test_order_is_confirmed(mail_host):
    confirm(ORDER, smtp=mail_host.smtp_address)
    (message,) = mail_host.wait_for("ann@example.test", count=1, seconds=5)
    assert message["Subject"] == "Your order"
    assert "a lamp" in message.get_content()


def test_a_deferral_is_tried_again(mail_host):
    mail_host.defer("ann@example.test")
    confirm(ORDER, smtp=mail_host.smtp_address)
    mail_host.inbox("ann").wait_for(subject="Your order")


def test_nobody_there(mail_host):
    mail_host.refuse("ann@example.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        confirm(ORDER, smtp=mail_host.smtp_address)
