-- The registry and the device shadow: what stations told of themselves. Written by the stations service alone.
--
-- Each fact carries the place of the event that it rests on: `received_at` (the edge's clock), `connection_id` and `sequence`.
-- An event that comes late or twice changes nothing that a later one has said.
-- The last transaction of a station is in the sessions service's tables, whether its socket is open in the router's.

CREATE SCHEMA IF NOT EXISTS stations;

CREATE TABLE stations.stations (
    station_id text PRIMARY KEY,
    partition int NOT NULL,                       -- of the station's topics in Kafka
    ocpp_version text NOT NULL,                   -- 1.6, 2.0.1 or 2.1, of the last connection that sent something
    vendor text,
    model text,
    serial_number text,                           -- 1.6: chargePointSerialNumber
    charge_box_serial_number text,                -- 1.6 only
    firmware_version text,
    modem_iccid text,
    modem_imsi text,
    meter_type text,                              -- 1.6 only
    meter_serial_number text,                     -- 1.6 only
    boot_reason text,                             -- 2.x only
    boot jsonb,                                   -- the last BootNotification as it came, unknown fields included
    boot_count bigint NOT NULL DEFAULT 0,
    registration_status text,                     -- Accepted, Pending or Rejected, as it was last answered; null before the first boot
    interval_seconds int,                         -- as it was last answered
    last_boot_at timestamptz,
    last_boot_connection_id text,
    last_boot_sequence bigint,
    firmware_status text,                         -- of the last (Signed)FirmwareStatusNotification
    firmware_status_at timestamptz,
    log_status text,                              -- of the last LogStatusNotification or DiagnosticsStatusNotification
    log_status_at timestamptz,
    clock_offset_ms bigint,                       -- station's clock minus ours, from its last StatusNotification with a timestamp
    clock_offset_at timestamptz,
    last_command_id text,
    last_command_action text,
    last_command_stage text,                      -- answered, error, timeout, offline, disconnected or rejected
    last_command_status text,                     -- the `status` of its answer, or the error code
    last_command_result jsonb,                    -- the answer's payload, or the error's code, description and details
    last_command_at timestamptz,
    triggered_at timestamptz,                     -- a TriggerMessage, GetBaseReport or GetReport was last sent; lets a Pending station speak
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,            -- last event folded here: heartbeats and transactions do not count
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

CREATE INDEX stations_partition ON stations.stations (partition);

COMMENT ON TABLE stations.stations IS 'One row per station that has ever been heard. Written by the stations service.';

CREATE TABLE stations.connectors (
    station_id text NOT NULL,
    evse_id bigint NOT NULL,                      -- 0 for 1.6, which knows connectors only
    connector_id bigint NOT NULL,                 -- 1.6: 0 is the station itself
    status text NOT NULL,
    error_code text,                              -- 1.6 only
    info text,
    vendor_id text,
    vendor_error_code text,
    reported_at timestamptz,                      -- the station's clock
    status_since timestamptz NOT NULL,            -- our clock: since when the status has been this one
    previous_status text NOT NULL DEFAULT '',
    payload jsonb NOT NULL,                       -- as it came, unknown fields included
    received_at timestamptz NOT NULL,
    connection_id text NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (station_id, evse_id, connector_id)
) WITH (fillfactor = 70);

COMMENT ON TABLE stations.connectors IS 'The last status of each connector. Written by the stations service.';

CREATE TABLE stations.notifications (
    notification_id uuid PRIMARY KEY,             -- from the business key of the fact: a resent one is the same
    station_id text NOT NULL,
    action text NOT NULL,                         -- as the specification spells it
    ocpp_version text NOT NULL,
    payload jsonb NOT NULL,                       -- as it came, unknown fields included
    status text,                                  -- its `status`, `type` or `eventType`, for lists
    request_id bigint,                            -- the command that it belongs to
    received_at timestamptz NOT NULL,
    connection_id text NOT NULL,
    sequence bigint NOT NULL
);

CREATE INDEX notifications_station ON stations.notifications (station_id, received_at DESC);

COMMENT ON TABLE stations.notifications IS
    'What stations reported, appended: boots, firmware, logs, security events, monitoring, data transfers and the like. Written by the stations service.';

CREATE TABLE stations.variables (
    station_id text NOT NULL,
    component text NOT NULL,                      -- empty for the configuration keys of 1.6
    component_instance text NOT NULL DEFAULT '',
    evse_id bigint NOT NULL DEFAULT 0,
    connector_id bigint NOT NULL DEFAULT 0,
    variable text NOT NULL,
    variable_instance text NOT NULL DEFAULT '',
    attribute text NOT NULL DEFAULT 'Actual',     -- Actual, Target, MinSet or MaxSet
    value text,
    mutability text,                              -- ReadOnly, WriteOnly or ReadWrite
    persistent boolean,
    constant boolean,
    characteristics jsonb,
    source text NOT NULL,                         -- the action that told it
    received_at timestamptz NOT NULL,
    connection_id text NOT NULL,
    sequence bigint NOT NULL,                     -- 0: told in the answer to a command
    PRIMARY KEY (station_id, component, component_instance, evse_id, connector_id, variable, variable_instance, attribute)
) WITH (fillfactor = 70);

COMMENT ON TABLE stations.variables IS
    'The device model of 2.x stations and the configuration keys of 1.6 stations, as they were last told. Written by the stations service.';

CREATE TABLE stations.documents (
    station_id text NOT NULL,
    kind text NOT NULL,                           -- charging-limit, ev-charging-needs, charging-profile, display-message, der-control …
    key text NOT NULL,                            -- what tells documents of one kind apart: an EVSE, a profile id, a message id
    payload jsonb,                                -- null: withdrawn by the station
    received_at timestamptz NOT NULL,
    connection_id text NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (station_id, kind, key)
) WITH (fillfactor = 70);

COMMENT ON TABLE stations.documents IS
    'Structured things of which the last one counts: limits, needs, schedules, profiles, messages, monitors, DER controls, streams. Written by the stations service.';
