-- Price plans, kept by the finance systems team
CREATE TABLE plans (
  code VARCHAR(16) NOT NULL PRIMARY KEY,
  monthly_eur_per_device DECIMAL(6,2) NOT NULL,
  support TEXT NOT NULL
);
INSERT INTO plans (code, monthly_eur_per_device, support) VALUES ('bronze', 2.40, 'Mail on working days, answer within 2 days');
INSERT INTO plans (code, monthly_eur_per_device, support) VALUES ('silver', 3.10, 'Mail and chat, answer within 8 hours'),
  ('gold', 3.95, 'Phone from 06:00 to 22:00, the customer''s own contact person');
INSERT INTO plans (code, monthly_eur_per_device, support) VALUES ('platinum', 6.80, 'Phone at any hour; yearly audit support; availability of 99.95 percent with penalties');
