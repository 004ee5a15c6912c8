"""The addresses of the pages."""

from django.urls import URLPattern, URLResolver, path

from upgrades.web import (
    approvals,
    audit,
    environment_editing,
    environment_import,
    environments,
    members,
    plans,
    policies,
    procedures,
    rollback,
    runs,
    runs_list,
    sign_in,
    simulated,
    starting,
    tokens,
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("sign-in/", sign_in.SignIn.as_view(), name="sign-in"),
    path("sign-out/", sign_in.sign_out, name="sign-out"),
    path("", environments.list_environments, name="home"),
    path("environments/", environments.list_environments, name="environments"),
    path("environments/new/", environment_editing.new_environment, name="new-environment"),
    path("environments/<int:environment_id>/", environments.show_environment, name="environment"),
    path(
        "environments/<int:environment_id>/board/", environments.environment_board, name="environment-board"
    ),
    path("environments/<int:environment_id>/start/<slug:procedure>/", starting.start, name="start-run"),
    path("environments/<int:environment_id>/plan/", plans.show_plan, name="plan"),
    path("environments/<int:environment_id>/members/", members.show_members, name="members"),
    path("environments/<int:environment_id>/tokens/", tokens.show_tokens_here, name="environment-tokens"),
    path("environments/<int:environment_id>/simulated/", simulated.act, name="simulated"),
    path(
        "environments/<int:environment_id>/edit/",
        environment_editing.edit_environment,
        name="edit-environment",
    ),
    path(
        "environments/<int:environment_id>/edit/<slug:kind>/new/",
        environment_editing.edit_record,
        name="new-record",
    ),
    path(
        "environments/<int:environment_id>/edit/<slug:kind>/<int:record_id>/",
        environment_editing.edit_record,
        name="edit-record",
    ),
    path(
        "environments/<int:environment_id>/edit/host/<int:host_id>/agent/",
        environment_editing.edit_agent,
        name="edit-agent",
    ),
    path(
        "environments/<int:environment_id>/changes/",
        environment_editing.list_changes,
        name="environment-changes",
    ),
    path(
        "environments/<int:environment_id>/export/<slug:form>/",
        environment_import.export,
        name="export-environment",
    ),
    path(
        "environments/<int:environment_id>/import/", environment_import.import_file, name="import-environment"
    ),
    path(
        "environments/<int:environment_id>/import/<uuid:draft_id>/",
        environment_import.import_draft,
        name="import-draft",
    ),
    path("runs/", runs_list.list_runs, name="runs"),
    path("runs/<int:run_id>/", runs.show_run, name="show-run"),
    path("runs/<int:run_id>/board/", runs.run_board, name="run-board"),
    path("runs/<int:run_id>/presence/", runs.run_presence, name="run-presence"),
    path("runs/<int:run_id>/evidence/<int:evidence_id>/", runs.run_evidence, name="run-evidence"),
    path("runs/<int:run_id>/record.zip", audit.export_record, name="run-record"),
    path("runs/<int:run_id>/roll-back/", rollback.roll_back, name="roll-back"),
    path("runs/<int:run_id>/<slug:verb>/", runs.act_on_run, name="run-act"),
    path("audit/", audit.list_audited, name="audit"),
    path("audit/searches/", audit.keep_search, name="audit-searches"),
    path("audit/runs/<int:run_id>/", audit.show_audited_run, name="audit-run"),
    path("audit/duties/", audit.show_duties, name="audit-duties"),
    path("audit/access/", audit.show_access, name="audit-access"),
    path("audit/reads/", audit.show_reads, name="audit-reads"),
    path("audit/record/", audit.show_record, name="audit-record"),
    path("audit/record/check/", audit.check_record, name="audit-check"),
    path("approvals/", approvals.list_approvals, name="approvals"),
    path("approvals/board/", approvals.approvals_board, name="approvals-board"),
    path("approvals/count/", approvals.count_approvals, name="approvals-count"),
    path("approvals/<int:run_id>/<slug:step>/<slug:gate>/", approvals.decide, name="approval"),
    path("environments/<int:environment_id>/policies/", policies.show_policies, name="policies"),
    path("procedures/", procedures.list_procedures, name="procedures"),
    path("procedures/<slug:procedure>/<int:version>/", procedures.show_procedure, name="procedure"),
]
