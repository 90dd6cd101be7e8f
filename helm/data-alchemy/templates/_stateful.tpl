{{/*
A database of one pod with one volume. Takes root, component, settings (image, persistence, resources), port, args
(YAML list or ""), env, probes, dataPath, and extraMounts/extraVolumes (YAML), checksum.
*/}}
{{- define "data-alchemy.database" -}}
{{- $hostPath := .settings.persistence.hostPath -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "data-alchemy.metadata" . | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ include "data-alchemy.componentName" . }}
  # Uninstalling the release keeps the volume: delete it by hand when the data may go.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  selector:
    matchLabels:
      {{- include "data-alchemy.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- /* Not the chart's version: an upgrade of the chart alone must not restart a database. */}}
        {{- include "data-alchemy.selectorLabels" . | nindent 8 }}
      annotations:
        checksum/config: {{ .extraVolumes | cat .checksum | sha256sum }}
    spec:
      serviceAccountName: {{ include "data-alchemy.componentName" (dict "root" .root "component" "data") }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with include "data-alchemy.pullSecrets" .root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "data-alchemy.podSecurity" (dict "user" (include "data-alchemy.databaseUser" .root)) | nindent 8 }}
      {{- with include "data-alchemy.scheduling" (dict "root" .root "gpus" 0) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      # A database that is stopped in a hurry replays its log at the next start.
      terminationGracePeriodSeconds: 60
      containers:
        - name: {{ .component }}
          image: {{ printf "%s:%s" .settings.image.repository .settings.image.tag }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- with .args }}
          args:
            {{- . | nindent 12 }}
          {{- end }}
          ports:
            - name: main
              containerPort: {{ .port }}
          env:
            {{- .env | nindent 12 }}
          {{- .probes | nindent 10 }}
          resources:
            {{- toYaml .settings.resources | nindent 12 }}
          securityContext:
            {{- include "data-alchemy.containerSecurity" .root | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: {{ .dataPath }}
            - name: tmp
              mountPath: /tmp
            {{- .extraMounts | nindent 12 }}
      volumes:
        - name: tmp
          emptyDir:
            sizeLimit: 256Mi
        {{- .extraVolumes | nindent 8 }}
        {{- if $hostPath }}
        - name: data
          hostPath:
            path: {{ $hostPath }}
            type: Directory
        {{- end }}
  {{- if not $hostPath }}
  volumeClaimTemplates:
    {{- include "data-alchemy.dataClaim" .settings.persistence | nindent 4 }}
  {{- end }}
---
{{ include "data-alchemy.service" (merge (dict "headless" true) .) }}
{{- end -}}
