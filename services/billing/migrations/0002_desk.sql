-- What billing and stations tell each other, besides the events of sessions. Written by the billing service alone.

ALTER TABLE billing.settlements ADD COLUMN status_info text;
COMMENT ON COLUMN billing.settlements.vat_company IS 'JSON: the address that the invoice goes to.';
COMMENT ON COLUMN billing.settlements.status_info IS 'What the station said about a payment that did not succeed.';

CREATE INDEX settlements_transaction ON billing.settlements (station_id, transaction_id);
CREATE INDEX settlements_unlinked ON billing.settlements (received_at)
    WHERE session_id IS NULL AND transaction_id IS NOT NULL;

-- A payment beside what it paid for. A settlement may come before its session, and without any.
CREATE VIEW billing.payments AS
SELECT s.psp_ref, s.status, s.amount, s.currency, s.settled_at, s.station_id, s.transaction_id, s.session_id,
       c.cdr_id, c.total_incl, s.amount - c.total_incl AS difference, s.receipt_id, s.receipt_url, s.vat_number
  FROM billing.settlements AS s
  LEFT JOIN billing.sessions AS b ON b.session_id = s.session_id
  LEFT JOIN billing.cdrs AS c ON c.cdr_id = b.cdr_id;
COMMENT ON VIEW billing.payments IS 'Settlements with the charge detail record that stands, and by how much they differ.';

-- Few stations say how they are told costs: those are found at once.
CREATE INDEX stations_cost ON config.stations (station_id) WHERE quirks ? 'cost';

CREATE TABLE billing.vat_questions (
    question_id uuid PRIMARY KEY,
    station_id text NOT NULL,
    edge_partition int NOT NULL,                 -- where the answer goes, with the two that follow
    connection_id text NOT NULL,
    message_id text NOT NULL,
    vat_number text NOT NULL,                    -- as the station sent it
    evse_id bigint,
    asked_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.vat_questions IS
    'VAT numbers that stations asked about and that are being looked up. Written by the billing service.';

CREATE TABLE billing.cost_refusals (
    station_id text PRIMARY KEY,
    code text NOT NULL,                          -- of the CALLERROR, such as NotSupported
    refused_at timestamptz NOT NULL
);
COMMENT ON TABLE billing.cost_refusals IS
    'Stations that know no CostUpdated; they are sent none until they boot again. Written by the billing service.';

CREATE TABLE billing.station_costs (
    session_id uuid PRIMARY KEY,
    currency text NOT NULL,
    total numeric,                               -- what the station says; null: it could not compute it, or it is unreadable
    after_tax boolean NOT NULL,                  -- whether both include taxes
    ours numeric NOT NULL,                       -- what the session costs here, which is what is billed
    difference numeric GENERATED ALWAYS AS (total - ours) STORED,
    failed boolean NOT NULL,                     -- the station could not compute it
    reason text,
    details text NOT NULL,                       -- JSON: its costDetails as it came
    checked_at timestamptz NOT NULL
);
CREATE INDEX station_costs_differing ON billing.station_costs (checked_at) WHERE difference <> 0 OR failed;
COMMENT ON TABLE billing.station_costs IS
    'What OCPP 2.1 stations say that sessions cost, beside what they cost here. Written by the billing service.';

CREATE TABLE billing.tariff_stations (
    station_id text PRIMARY KEY,
    state text NOT NULL,                         -- booted (what it holds is not known), queried (it has been asked),
                                                 -- known, or unsupported (it takes no tariffs)
    booted_at timestamptz NOT NULL,
    revision bigint NOT NULL,                    -- of the configuration that its tariffs follow
    look_at timestamptz,                         -- when to look again without a change of the configuration
    query_id uuid,                               -- the GetTariffs that is on its way
    attempts int NOT NULL DEFAULT 0,             -- commands since the boot
    problem text                                 -- why it takes no tariffs
) WITH (fillfactor = 70);
CREATE INDEX tariff_stations_revision ON billing.tariff_stations (revision);
CREATE INDEX tariff_stations_look ON billing.tariff_stations (look_at) WHERE look_at IS NOT NULL;
COMMENT ON TABLE billing.tariff_stations IS
    'OCPP 2.1 stations whose default tariffs are kept as they are assigned. Written by the billing service.';

CREATE TABLE billing.station_tariffs (
    station_id text NOT NULL,
    evse_id bigint NOT NULL,                     -- 0: all
    station_tariff_id text NOT NULL,             -- the tariffId that the station is told: another one for each content
    tariff_id text NOT NULL,
    tariff_version bigint NOT NULL,
    status text NOT NULL,                        -- sent, Accepted, Rejected, TooManyElements, ConditionNotSupported,
                                                 -- DuplicateTariffId, lossy (not sent: it would price otherwise) or failed
    reason text,
    command_id uuid,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (station_id, evse_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE billing.station_tariffs IS
    'The default tariff of each EVSE of OCPP 2.1 stations, and whether the station took it. Written by the billing service.';
