"""`roberta notify`: Prefect's own automations, so that people hear of a run that failed, or that lost its process.

The server sends, not the run: a run that was killed cannot. Two automations, made anew at each call:
- a run with the tag `roberta` that fails or crashes is told by webhook or e-mail;
- a run whose heartbeats stop (its machine died, SIGKILL) is marked as crashed, which frees its place in the queue,
  and is then told like any other. `prefect.yaml` switches the heartbeats on.

Addresses and keys come from the environment and go into Prefect's blocks, encrypted: ROBERTA_WEBHOOK, an address that
takes JSON with `text` (Slack, Mattermost and many others do); or ROBERTA_SENDGRID_KEY, ROBERTA_EMAIL_FROM and
ROBERTA_EMAIL_TO. Prefect's server has no block for plain SMTP; a webhook of the mail system does the same.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from roberta_core.errors import BadInput

TAG = "roberta"
TOLD = "roberta: a run failed"
LOST = "roberta: a run lost its process"
HEARTBEAT_S = 30
"""As PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml; Prefect takes no less."""
SUBJECT = "roberta: {{ flow_run.name }} of {{ flow.name }} is {{ flow_run.state.name }}"
BODY = "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}"


def save_block(environment: Mapping[str, str]) -> UUID:
    """Saves the block that sends, with its secrets, on the server. Returns its id.

    Raises:
        BadInput: the environment names neither a webhook nor an e-mail account.
    """
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail

    if address := environment.get("ROBERTA_WEBHOOK"):
        # the address of a webhook is its key: whoever has it may write
        block = CustomWebhookNotificationBlock(
            name=TAG, url="{{address}}", json_data={"text": "{{subject}}\n{{body}}"}, secrets={"address": address}
        )
        return block.save(f"{TAG}-webhook", overwrite=True)
    if key := environment.get("ROBERTA_SENDGRID_KEY"):
        sender, to = environment.get("ROBERTA_EMAIL_FROM", ""), environment.get("ROBERTA_EMAIL_TO", "")
        if sender and to:
            block = SendgridEmail(api_key=key, sender_email=sender, to_emails=to.replace(",", " ").split())
            return block.save(f"{TAG}-email", overwrite=True)
    raise BadInput(
        "Nobody is named that could be told.",
        "Set ROBERTA_WEBHOOK; or ROBERTA_SENDGRID_KEY, ROBERTA_EMAIL_FROM and ROBERTA_EMAIL_TO.",
    )


def automations(block: UUID) -> list:
    """The two automations, as Prefect has them."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState, SendNotification
    from prefect.events.schemas.automations import EventTrigger, Posture

    of_flow_runs = {"prefect.resource.id": "prefect.flow-run.*"}
    tagged = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    told = Automation(
        name=TOLD,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}, match=of_flow_runs, match_related=tagged,
            posture=Posture.Reactive, threshold=1, within=timedelta(0),
        ),
        actions=[SendNotification(block_document_id=block, subject=SUBJECT, body=BODY)],
    )  # fmt: skip
    lost = Automation(
        name=LOST,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"}, expect={"prefect.flow-run.heartbeat", *ends}, match=of_flow_runs,
            match_related=tagged, for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1,
            within=timedelta(seconds=3 * HEARTBEAT_S),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="It gives no sign of life any more.")],
    )  # fmt: skip
    return [told, lost]


def set_up(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Saves the block and makes the automations, in place of earlier ones of the same names. Returns their names.

    Raises:
        BadInput: nobody is named that could be told.
    """
    from prefect.client.orchestration import get_client

    block = save_block(environment)
    made = automations(block)
    with get_client(sync_client=True) as client:
        for each in made:
            for old in client.read_automations_by_name(each.name):
                client.delete_automation(old.id)
    for each in made:
        each.create()
    return [each.name for each in made]
